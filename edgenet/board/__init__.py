"""What a board is, how it is recognised and what its sensors say; needs no runtime."""
