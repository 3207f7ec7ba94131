"""What people look at: maps, fault explanations, traces."""
