"""The directory between the two programs: its files, its manifest, its proof."""
