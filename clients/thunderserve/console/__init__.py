"""What both command-line programs share: how values are shown and how commands end."""
