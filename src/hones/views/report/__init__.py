"""One HTML file of a run, figures for papers, and the page of one explained answer."""
