"""The structure of PNG, JPEG and WebP files: their facts, and the bytes that are picture. Decodes no pixel."""
