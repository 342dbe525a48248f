from __future__ import annotations

from django.contrib import admin
from django.urls import path

from . import views

urlpatterns = [path("order/<int:number>/", views.order), path("admin/", admin.site.urls)]
