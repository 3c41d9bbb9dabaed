"""The demo base model: its shape, its files, and the drawn lines that it is trained on."""
