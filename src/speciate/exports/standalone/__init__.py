"""What goes out with an exported model and nowhere else: how its folder is read, and stand-ins for heavy libraries.

program.py writes these files, cut down to what a model needs, beside its weights. They import what leaves with them.
"""
