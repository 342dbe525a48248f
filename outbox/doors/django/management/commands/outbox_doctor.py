from outbox.doors.django.management.passing import Passing


class Command(Passing):
    help = "Check configuration, key, database, accounts, runners and the queue: outbox doctor"
    verb = ("doctor",)
