from __future__ import annotations

from typing import Any

from django.core.mail import send_mail
from django.db import transaction
from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt

from .models import Order


@csrf_exempt
def order(request: Any, number: int) -> HttpResponse:
    """An order and its confirmation; with ?fail=1, something goes wrong after both."""
    with transaction.atomic():
        placed = Order.objects.create(number=number, email=request.POST["email"])
        send_mail(f"Order {placed.number}", "Thanks!", None, [placed.email])
        if request.GET.get("fail"):
            raise RuntimeError("the warehouse is on fire")
    return HttpResponse("thanks", status=201)
