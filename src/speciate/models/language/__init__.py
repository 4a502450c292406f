"""Language models: loading, chat templates, generation, vision-language models. torch and transformers are imported
late.
"""
