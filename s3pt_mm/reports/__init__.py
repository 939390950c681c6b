"""Tables, figures and reports made from finished runs; imports no model code by itself."""
