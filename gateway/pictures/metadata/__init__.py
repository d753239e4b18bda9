"""The structure of PNG, JPEG and WebP files: their facts, and the bytes that are not metadata. Decodes no pixel."""
