"""The life of one camera: when it is opened, closed and recovered, and everything that holds while it is open."""
