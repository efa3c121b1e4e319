"""What the words mean: the pure core that every program shares. No disk, socket, clock or GPU."""
