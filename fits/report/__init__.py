"""The report: one self-contained HTML file that a sceptical colleague can check.

Being written: `render` puts the runs, the transfer checks, the law and the recipe of one study on a page (page.html.j2),
`plots` draws its figures, `whatif` hands the fitted law to the page's sliders as data.
"""
