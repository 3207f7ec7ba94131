"""Program images as plans: what goes where, with which permissions and relocations. Touches no memory."""
