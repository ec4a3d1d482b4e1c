"""Image formats: headers, decoding, encoding, distortions."""
