"""ε of Gaussian mechanisms by Google's dp-accounting, for tests/unit/test_privacy_accountant.c.

Each line: sigma, sampling probability, rounds, delta, epsilon of the RDP accountant at its own
orders refined by tenths, epsilon of the privacy loss distribution (numerically exact; a lower
bound). With sampling the RDP accountant is given whole orders alone, as ours bounds fractional
ones by the next whole one.

    pip install dp-accounting==0.6.0; python make_privacy_goldens.py > ../privacy/epsilon.tsv
"""

import dp_accounting
from dp_accounting import pld, rdp

CASES = [
    # plain Gaussians: sigma, q, rounds, delta
    (0.5, 1.0, 1, 1e-5), (1.0, 1.0, 1, 1e-5), (2.0, 1.0, 1, 1e-5), (5.0, 1.0, 1, 1e-5),
    (10.0, 1.0, 10, 1e-5), (1.0, 1.0, 10, 1e-5), (4.0, 1.0, 30, 1e-6), (50.0, 1.0, 100, 1e-7),
    (0.25, 1.0, 3, 1e-5), (100.0, 1.0, 3, 1e-5),
    # sampled
    (4.0, 0.01, 10000, 1e-5), (1.1, 256 / 60000, 14062, 1e-5), (1.0, 0.01, 1000, 1e-5),
    (2.0, 0.1, 100, 1e-6), (0.8, 0.5, 10, 1e-5), (1.3, 0.02, 500, 1e-5),
]


def event(sigma, q, rounds):
    one = dp_accounting.GaussianDpEvent(sigma)
    if q < 1.0:
        one = dp_accounting.PoissonSampledDpEvent(q, one)
    return dp_accounting.SelfComposedDpEvent(one, rounds)


def epsilon(sigma, q, rounds, delta):
    orders = [i / 10 for i in range(11, 651)] if q == 1.0 else list(range(2, 66))
    orders += [65 * 1.02**i for i in range(1, 480)] if q == 1.0 else [2**i for i in range(7, 14)]
    accountant = rdp.RdpAccountant(orders)
    accountant.compose(event(sigma, q, rounds))
    exact = pld.PLDAccountant(value_discretization_interval=1e-3)
    exact.compose(event(sigma, q, rounds))
    return accountant.get_epsilon(delta), exact.get_epsilon(delta)


for case in CASES:
    bound, exact = epsilon(*case)
    print("\t".join(repr(float(x)) for x in (*case, bound, exact)))
