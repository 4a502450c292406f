"""Published models with their own heads, as they are: recognized by config.json, loaded strictly, asked by adapters.

Recognizing needs no model library, as plans do it; loading and answering happen in workers.
"""
