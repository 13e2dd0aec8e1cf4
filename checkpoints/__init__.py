"""The trained nets that edgevision ships, and the street photos of its demo: data, no code.

A clone of edgevision reads this folder where it lies; elsewhere it is the package `edgevision_zoo`.
"""
