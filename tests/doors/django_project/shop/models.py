from __future__ import annotations

from django.db import models


class Order(models.Model):
    """The business row."""

    number = models.IntegerField(unique=True)
    email = models.EmailField()
