"""Training of networks with a head: train_network.py searches, training_loop.py steps, durable_training.py saves.
May use: training_context.py, held_out.py and selection/. Knows no recipe."""
