"""Numbers for people: bytes, hours and durations in the unit that suits them."""


def size(number: float) -> str:
    """Bytes for people: `12.4 TB`; powers of 1000, as on disks."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            return f"{number:,.0f} {unit}" if number >= 100 or unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError


def hours(number: float) -> str:
    """Hours for people: `383`, `7.9`, `0.02`."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}" if number else "0"


def duration(seconds: float) -> str:
    """Seconds for people: `12.3 days`, `5.1 hours`, `4 minutes`, `20 seconds`."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{round(seconds / 60)} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
