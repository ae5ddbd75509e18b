"""What the module promises."""
