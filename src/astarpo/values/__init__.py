"""Stage 1: from rewards to V* and its error, and the table on disk that keeps them."""
