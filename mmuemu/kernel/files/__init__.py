"""The guest's files: inodes, mounts over host directories, path resolution, open files and descriptors."""
