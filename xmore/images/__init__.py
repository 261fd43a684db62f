"""Reading the bytes of images, and decoding them within bounds."""
