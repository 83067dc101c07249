"""Fine-tunes a causal language model with several optimizers and compares them.

Behind `cosmic finetune`. Needs the demo extra: ``pip install 'cosmic-optim[demo]'``.
"""
