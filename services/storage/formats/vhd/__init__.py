"""VHD: image files (`image`, `chain` ...) and streams (`writer`, `reader`)."""
