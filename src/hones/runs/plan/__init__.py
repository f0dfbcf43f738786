"""A run's bill before it is paid for: operations, bytes, memory and hours of every stage, from shapes and lengths."""
