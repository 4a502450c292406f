"""What people and agents see of a version: SQL, description and charts, contact sheet, differences.

The daemon's side asks pool processes, which read the rows. May use: loading/ and the files above."""
