"""Fetch and prepare the openly licensed artwork, letters, photographs and pages that scenes use.

`sets.yaml` says which packages, in which versions, under which licences, for which split;
`pictures.yaml` and `fonts.yaml` do so for photographs and letters. Nothing here is imported by
training: the output is a folder of pictures with a JSON Lines index, which goes through the
privacy door into shards like any other data.
"""
