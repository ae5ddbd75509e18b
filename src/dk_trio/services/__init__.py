"""One Protocol per service, with local and remote strategies behind it."""
