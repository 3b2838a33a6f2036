"""Synthetic glioma MRI: a cohort of four hospitals that needs no download. It shows that the software works."""

from client.data.phantom.cohort import PhantomSite, make_cohort

__all__ = ["PhantomSite", "make_cohort"]
