from outbox.doors.django.management.passing import Passing


class Command(Passing):
    help = "Every command of Outbox: manage.py outbox list --state failed"
