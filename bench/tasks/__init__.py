"""Drivers that time single StartModule calls. Each module is a program: it drives one port and prints JSON.

They are blocking and raw (bench/raw_driver.py), so that a core to themselves leaves most of it idle.
"""
