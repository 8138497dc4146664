"""What makes the site of the documentation beside the pages themselves."""
