"""One file per training method or family: `fit(context, parameters) -> SelectedModel`. recipe_table.py lists them.
May use: networks/, language/ and rewards/, selection/, and training_context.py and held_out.py above."""
