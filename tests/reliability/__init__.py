"""The promises of dk-trio, which tests carry each of them, and what the batteries did when they last ran."""
