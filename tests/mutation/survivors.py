"""Mistakes that no test finds, each with the reason why it changes nothing that anybody promised."""

LEDGER: dict[str, str] = {
    "lib: for index = 1, #fields, 2 do record[fields[index]] = fields[index + 1] end"
    " -> for index = 1, #fields, 1 do record[fields[index]] = fields[index + 1] end": (
        "a record in memory has fields more that nobody reads"
    ),
    "nack: id = call, state = 'void', price = 0, usd = 0, images = 0, slots = {}, written = '-', at = digits(now),"
    " -> id = call, state = 'void', price = 0, usd = 0, images = 1, slots = {}, written = '-', at = digits(now),": (
        "only presumed and posted calls count"
    ),
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
    "gateway.upstreams.verdict CallFailed.__init__: super().__init__(str(failure)) -> (left out)": (
        "Python keeps the argument of an exception, and the text of a failure is the same"
    ),
    "gateway.net.fetcher FetchFailed.__init__: super().__init__(message) -> (left out)": (
        "Python keeps the arguments of an exception, and only `kind` and `status` decide"
    ),
    "gateway.net.fetcher Fetcher.__init__: False -> True": "a fresh connection for each download costs time alone",
    "gateway.net.outside_text Mask._find_secrets: 0 -> -1": "every known form of a key has a group",
    "gateway.net.outside_text Mask._find_secrets: 0 -> 1": "every known form of a key has a group",
    "gateway.net.outside_text Mask._find_secrets: 1 -> 2": "a piece that is too short is no run of a secret",
    "gateway.net.outside_text _spellings: 8 -> 7": "the first whole character is the same for shifts of 0, 1 and 2",
    "gateway.net.outside_text _spellings: len(padded) - 1 -> len(padded) + 1": "at most one more character is hidden",
    "gateway.net.outside_text Mask._find_secrets: len(folded) - _RUN -> len(folded) + _RUN": (
        "a piece that is too short is no run of a secret"
    ),
    "gateway.net.outside_text Mask.learn: len(one) - _RUN -> len(one) + _RUN": (
        "no text is searched for a piece that is too short"
    ),
    "gateway.net.outside_text Mask.learn: 1 -> 2": "no text is searched for a piece that is too short",
    "gateway.net.outside_text _replace: 1 -> 2": "any negative number says that no span has begun",
    "gateway.net.outside_text Mask._find_secrets: match.lastindex or 0 -> match.lastindex": (
        "every known form of a key has a group"
    ),
    "gateway.callers.auth Caller._check_choice: self.key.upstreams or () -> self.key.upstreams": (
        "a key that may not reach an upstream has a list of them"
    ),
    "gateway.callers.auth Caller.check_model: self.key.models or () -> self.key.models": (
        "a key that may not use a model has a list of them"
    ),
}
