"""Models over files: images, folders, videos; pictures of the answers."""
