"""What each page shows, as functions of a visit: data for a template, or where a form leads."""
