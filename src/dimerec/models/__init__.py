"""Models, one file each, found by name: a module with a `Config` struct and a `Model` class."""
