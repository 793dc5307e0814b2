"""The perceptual study of Appendix C as a small local web page."""
