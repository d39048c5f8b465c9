"""What is drawn on a page: plots as inline SVG, and strips of small pictures."""
