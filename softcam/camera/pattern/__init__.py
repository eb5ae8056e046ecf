"""The pattern camera: a moving test image with the behaviour of a Camera Module 3, for machines without a camera."""
