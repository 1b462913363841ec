"""Decides: the model-and-tool loop that gateway and trainer share, so that training meets production's own code."""
