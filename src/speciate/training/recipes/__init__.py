"""One file per training method or family: `fit(context, parameters) -> SelectedModel`. recipe_table.py lists them.
May use: networks/, language/ and rewards/, and training_context.py, held_out.py and model_selection.py above."""
