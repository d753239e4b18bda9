"""Mistakes that no test finds, each with the reason why it changes nothing that anybody promised."""

LEDGER: dict[str, str] = {
    "lib: write_slot(record, slot, 0, 'released') -> write_slot(record, slot, 1, 'released')": (
        "no script reads the amount of a released slot"
    ),
    "look: local rate = look_at_rate(now, scope, name, limits[name], 0)"
    " -> local rate = look_at_rate(now, scope, name, limits[name], 1)": (
        "`look` shows what is left and when the rate is full, and neither depends on what is needed"
    ),
    "open: redis.call('PEXPIRE', index, digits(math.floor(keep / 1000) + DAY_MS))"
    " -> redis.call('PEXPIRE', index, digits(math.ceil(keep / 1000) + DAY_MS))": (
        "a name that lives for a day may live a millisecond longer"
    ),
    "open: return nil -> (left out)": "a Lua function without a return returns nil",
    "recount: if bucket.window ~= 'total' and redis.call('PTTL', key) < 0 then"
    " -> if bucket.window ~= 'total' and redis.call('PTTL', key) <= 0 then": (
        "a window with less than a millisecond to live is kept instead of lost"
    ),
}

PYTHON: dict[str, str] = {
    "gateway.net.fetcher is_public: ip.is_global and (not ip.is_multicast) and (not any((ip in network for network in"
    " _DENIED))) -> ip.is_global and (not any((ip in network for network in _DENIED)))": (
        "the denied networks hold the multicast ones too; both stay, in case one list loses them"
    ),
}
