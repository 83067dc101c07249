"""Parameter groups by what each tensor is to its model, as the modules' types say it."""
