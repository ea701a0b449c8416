"""The packaged model: images in, decisions out; a server, a page and other formats for it."""
