"""The data room: one file a data set, real or generated.

A file has `KIND` (which columns its rows have), `SPLITS` (the names of its splits), `source(splits, *, ...)` (where the
data come from; light, raises a `Problem` when they cannot be had here) and `rows(split, *, ...)` (a lazy sequence).

    KIND           columns
    translation    source, target: str
    speech         audio: float32 numpy array [samples] at 16 kHz, decoded when it is read; text: str
    pair           source, target: str, the source with whatever tells the model what to do
    text           text: str
    reasoning      question, answer: str (GSM8K's format: steps, then `#### number`)
    instruction    instruction, response: str
    image          image: uint8 numpy array [height, width, 3], RGB, decoded when it is read; label: int, the number of
                   its class; classes: the distinct names of all classes, in the order of their numbers
"""
