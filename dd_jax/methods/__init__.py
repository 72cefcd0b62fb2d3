"""One short file per paper: a composition of the library's parts, with its settings and figures."""

from __future__ import annotations

from dd_jax.distill.recipe import Recipe
from dd_jax.errors import unknown
from dd_jax.methods import (
    ast,
    att,
    cafe,
    datadam,
    datm,
    dc,
    dcc,
    dd,
    dm,
    dream,
    dsa,
    frepo,
    ftd,
    fyi,
    idc,
    idm,
    kip,
    krr_st,
    label_distillation,
    label_solve,
    linba,
    m3d,
    mtt,
    ncfm,
    podd,
    rat_bptt,
    rcig,
    rfad,
    soft_label_dd,
    tesla,
    wmdd,
)
from dd_jax.methods.record import Method, Published, preset
from dd_jax.types import RealData, Split

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        frepo.METHOD, kip.METHOD, label_solve.METHOD, rfad.METHOD, rcig.METHOD, krr_st.METHOD,
        dm.METHOD, dc.METHOD, dsa.METHOD, dcc.METHOD, dcc.DSAC_METHOD, idc.METHOD, dream.METHOD,
        fyi.METHOD, cafe.METHOD, datadam.METHOD, idm.METHOD, m3d.METHOD,
        ncfm.METHOD, wmdd.METHOD, mtt.METHOD, ftd.METHOD, tesla.METHOD, datm.METHOD, att.METHOD,
        ast.METHOD, dd.METHOD, soft_label_dd.METHOD, label_distillation.METHOD, rat_bptt.METHOD,
        linba.METHOD, podd.METHOD,
    )
}


def get(name: str) -> Method:
    """The record of a method.

    Raises:
      ConfigError: unknown name, with the nearest ones.

    Example:
      >>> get("dm").title
      'Dataset Condensation with Distribution Matching'
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def recipe(
    name: str, data: RealData | Split, *, protocol: str = "official", ipc: float = 1, **changes
) -> Recipe:
    """The recipe of a method for this data.

    Args:
      name: of the method, see `METHODS`.
      data: the real set (of a `Split`, its training part).
      protocol: "official" or "cpu".
      ipc: images per class.
      **changes: any setting of the method's config.

    Returns:
      A `Recipe`; vary it further by `dataclasses.replace`.

    Raises:
      ConfigError: unknown method, protocol or setting, or a value that cannot be.

    Example:
      >>> import numpy as np, dd_jax as dd
      >>> real = dd.data.from_arrays(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 0, 1, 1]))
      >>> recipe("dm", real, protocol="cpu", steps=5).steps
      5
    """
    method = get(name)
    train = data.train if isinstance(data, Split) else data
    return method.recipe(preset(method, protocol, ipc, **changes), train)


__all__ = ["METHODS", "Method", "Published", "get", "preset", "recipe"]
